"""What a process owes its terminal, its launcher and the other processes of its run."""
