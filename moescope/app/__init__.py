"""The dashboard: pages of Streamlit over one store."""
