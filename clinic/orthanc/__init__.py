"""Messengers: scripts that run inside an Orthanc server and ask the service. They import nothing of this project."""
