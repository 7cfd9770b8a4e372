"""How our own networks train: loop, losses, optimizers, schedules, validation."""
