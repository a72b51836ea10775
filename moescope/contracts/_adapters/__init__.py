"""How each implementation of a mixture of adapters speaks: one file each, all under the contract `adapter_mixture`."""
