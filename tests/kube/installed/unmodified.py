"""What somebody wrote who has never heard of Spillway: a chat by the OpenAI SDK, a stream of one, and the end."""

from openai import OpenAI

client = OpenAI()
messages = [{"role": "user", "content": "Say hello."}]
answer = client.chat.completions.create(model="chat", messages=messages, max_tokens=5)
print(client.base_url, "plain", len(answer.choices[0].message.content))
with client.chat.completions.create(model="chat", messages=messages, max_tokens=5, stream=True) as chunks:
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
print(client.base_url, "stream", len(text))
