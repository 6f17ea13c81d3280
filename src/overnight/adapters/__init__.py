"""The outside world behind the ports: databases, disks, model servers."""
