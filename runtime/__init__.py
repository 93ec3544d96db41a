"""Bundle to conversation: engines, caches, turn taking, the scheduler and the session."""
