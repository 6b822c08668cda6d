"""Layers split over the cores of a mesh, with routed and contended links."""
