"""Every error a user, a file or a device can cause.

AntiphonError
├── ConfigError            a setting or a model description that cannot work
├── CapacityError          more rows, samples or memory than there is room for
├── AudioError             a recording that cannot be used
├── AudioDeviceError       a microphone or loudspeaker that cannot be used
└── BundleError            a bundle that cannot be used
    ├── VersionMismatch    written for another format version
    └── CorruptFile        a file that is missing, truncated or not what the manifest says
"""

from __future__ import annotations


class AntiphonError(Exception):
    """Base of all errors that are not bugs. The message says what, got, expected, way out."""


class ConfigError(AntiphonError):
    """A setting or a model description that cannot work."""


class CapacityError(AntiphonError):
    """More rows, samples or memory than there is room for."""


class AudioError(AntiphonError):
    """A recording that cannot be used."""


class AudioDeviceError(AntiphonError):
    """A microphone or loudspeaker that cannot be used."""


class BundleError(AntiphonError):
    """A bundle that cannot be used."""


class VersionMismatch(BundleError):
    """A bundle written for another format version."""


class CorruptFile(BundleError):
    """A file that is missing, truncated, or not what the manifest says."""
