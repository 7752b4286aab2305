"""HTTP over ``run/agent.sock``: the routes, the server in the agent, the client in agentctl, and who may do what."""
