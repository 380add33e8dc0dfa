"""Methods: who is trained next and who is stopped, decided from what is known alone"""
