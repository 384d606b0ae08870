"""The valuer command, the demo and the supervisor."""
