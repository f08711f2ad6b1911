"""The library the stage scripts share; each module knows only the modules below it (see pyproject.toml)."""
