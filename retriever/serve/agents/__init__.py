"""The indexes for agents, over the Model Context Protocol: the tools, and what they answer."""
