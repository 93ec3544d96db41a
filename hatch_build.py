"""Make the folders one package: `antiphon/__init__.py`, and a link tree in .dev/ for editing."""

from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FILES = {
    "__init__.py": '"""On-device speech-to-speech. Public API: `antiphon.runtime`."""\n',
    "py.typed": "",
}
BUNDLE = Path("nano", "bundle")  # the default bundle; installed as antiphon/nano_bundle


class PackageTree(BuildHookInterface):
    """Adds what does not lie in the four folders; links it all for an editable install."""

    def initialize(self, version: str, build_data: dict) -> None:
        """Write .dev/antiphon and tell hatchling what to ship beside the folders."""
        tree = Path(self.root, ".dev", "antiphon")
        tree.mkdir(parents=True, exist_ok=True)
        for name, text in FILES.items():
            (tree / name).write_text(text)
        if version == "editable":
            for part in map(Path, self.build_config.sources):
                link(tree / part.name, part)
            link(tree / "nano_bundle", BUNDLE)  # may dangle until a bundle is made
            return
        shipped = {str(tree / name): f"antiphon/{name}" for name in FILES}
        bundle = Path(self.root, BUNDLE)
        if (bundle / "manifest.json").is_file():
            shipped[str(bundle)] = "antiphon/nano_bundle"
        build_data["force_include"] |= shipped


def link(place: Path, target: Path) -> None:
    """Make `place`, two folders below the root, a relative link to `target`."""
    if not place.is_symlink():
        place.symlink_to(Path("..", "..", target), target_is_directory=True)
