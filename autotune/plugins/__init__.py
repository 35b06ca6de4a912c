"""Other frameworks that run their graphs by our kernels, a package each; none is imported before it is asked for."""
