"""The library that the stage scripts share; a module imports only from the modules below it (see pyproject.toml)."""
