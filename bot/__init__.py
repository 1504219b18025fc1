"""What answers: prompt, model, confidence, the four routes, and Slack. Never imports learning."""
