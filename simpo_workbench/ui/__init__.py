"""The interface: panels that read run folders and ask models in other processes.

Each is a widget of its own; `wb.Workbench()` arranges them.
"""
