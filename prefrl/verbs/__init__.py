"""The verbs of the `prefrl` command, by what they are about. `prefrl.cli` has their list."""
