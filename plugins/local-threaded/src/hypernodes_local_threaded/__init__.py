"""The threaded engine of hypernodes: nodes and items on a pool of threads in this process."""
