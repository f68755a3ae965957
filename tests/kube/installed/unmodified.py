"""What somebody wrote who has never heard of Spillway: chats by the SDKs of OpenAI and Anthropic, and the end."""

from anthropic import Anthropic
from openai import OpenAI

client = OpenAI()
messages = [{"role": "user", "content": "Say hello."}]
answer = client.chat.completions.create(model="chat", messages=messages, max_tokens=5)
print(client.base_url, "plain", len(answer.choices[0].message.content))
with client.chat.completions.create(model="chat", messages=messages, max_tokens=5, stream=True) as chunks:
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
print(client.base_url, "stream", len(text))
other = Anthropic()
message = other.messages.create(model="chat", messages=messages, max_tokens=5)
print(other.base_url, "message", len(message.content[0].text))
