"""agentctl: one file per noun a person types, and what they share (``base``, ``text``, ``table``, ``output``)."""
