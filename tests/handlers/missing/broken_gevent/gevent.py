raise ValueError("greenlet.greenlet size changed, may indicate binary incompatibility")
