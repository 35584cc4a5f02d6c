"""Context variables are set at the import: decimal's precision, and one of the script's own."""
import contextvars
import decimal
import time

decimal.getcontext().prec = 50
settings = contextvars.ContextVar("settings", default="none")
settings.set("import")
request = contextvars.ContextVar("request")


def handler(data, context):
    text = data.read().decode()
    request.set(text)
    time.sleep(0.002)
    seen = (str(decimal.Decimal(1) / 3), settings.get(), request.get())
    if seen != ("0." + 50 * "3", "import", text):
        raise ValueError(f"it sees {seen}")
    return text, "text/plain"
