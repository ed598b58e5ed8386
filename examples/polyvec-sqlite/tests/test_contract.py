from polyvec.testing.contract import *  # noqa: F403
