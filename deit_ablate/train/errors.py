"""What the user can put right."""


class TrainError(ValueError):
    """The recipe, the data or the machine does not allow this training; the message says what to change."""
