"""A microscope on one machine, the agent on another.

`semagent.remote.protocol` is what they say to each other, and all a client needs;
`semagent.remote.serve` runs on the microscope PC. See ``docs/remote.md``.
"""
