"""What an environment's constructor raises where it is given what it cannot use."""

REFUSALS = (TypeError, ValueError, ArithmeticError, LookupError, OSError, AssertionError, AttributeError, RuntimeError)
