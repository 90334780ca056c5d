"""Data sources: from files, folders and hub sets to one artefact of checked pairs each."""
