"""Model updates over the air: the signed repository, its client, and the slots on the robot.

The repository follows The Update Framework (TUF, https://theupdateframework.io), by python-tuf. The extra
`update` installs what this folder needs; nothing else imports it unless updates are used.
"""
