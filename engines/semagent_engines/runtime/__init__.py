"""Running an artefact beside the microscope. Nothing here imports torch."""
