"""env.toml to typed, validated, interpolated desired state. Pure."""
