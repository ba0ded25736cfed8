"""Pictures that are worth a label: which ones are kept, the folder that keeps them, review and export."""
