"""What the core asks of the outside world: one small Protocol for each capability, its docstring the promise."""
