"""The statistics: functions of numbers alone."""
