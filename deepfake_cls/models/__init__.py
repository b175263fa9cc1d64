"""The classifiers: a residual network and exact nearest neighbours."""
