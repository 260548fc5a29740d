"""The custom resources, as types. Knows no client, no clock and no settings."""
