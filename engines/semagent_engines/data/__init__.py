"""Training data: real micrographs from a folder, procedural specimens, and the physics of the beam.

A batch is made in the order of the microscope: specimen, scale, blur, scan and detector noise,
quantisation. No defocused acquisition is needed: sharp micrographs and the beam model make the
pairs.
"""
