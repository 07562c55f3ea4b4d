"""From YAML files and a command line to one checked configuration. torch is not imported here."""
