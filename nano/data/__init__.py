"""The data recipe of nano: teacher voices, cheap accents, and the command that speaks every set."""
