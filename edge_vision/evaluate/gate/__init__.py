"""The gate alone measured against fixed intervals and other motion gates."""
