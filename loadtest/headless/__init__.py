"""Programs that run the engine itself, without a server: the long run, the cost curves.

They are no customers: what they measure is below everything a customer sees. Each is started by the module of its
name in loadtest, which names the folder of compiled kernels before anything here is imported.
"""
