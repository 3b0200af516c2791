"""`DaskEngine` and `DaskBackend`: pipelines on Dask clusters."""
