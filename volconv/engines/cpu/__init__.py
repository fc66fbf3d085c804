"""Algorithms for the CPU: one file each, ``plan`` picks one, ``workers`` runs it on threads."""
