"""Learning frameworks, one file each, all under the contract of ``contract.py``."""
