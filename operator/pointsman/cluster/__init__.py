"""The Kubernetes API: our resources, ConfigMaps and Secrets, on a real cluster or in memory."""
