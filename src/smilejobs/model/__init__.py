"""What the API says, as frozen attrs classes, and the tables that give its codes their meaning."""
