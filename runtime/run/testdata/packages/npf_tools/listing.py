def tools():
    """What prompt flow finds through the entry point."""
    return {
        "npf_tools.text.shout": {
            "name": "Shout",
            "type": "python",
            "module": "npf_tools.text",
            "function": "shout",
            "inputs": {"text": {"type": ["string"]}, "times": {"type": ["int"], "default": 1}},
            "deprecated_tools": ["npf_tools.old.yell"],
        },
        "npf_tools.text.Prefix.add": {
            "name": "Prefix",
            "type": "python",
            "module": "npf_tools.text",
            "class_name": "Prefix",
            "function": "add",
            "inputs": {"prefix": {"type": ["string"]}, "text": {"type": ["string"]}},
        },
        "npf_tools.text.reach": {
            "name": "Reach",
            "type": "python",
            "module": "npf_tools.text",
            "function": "reach",
            "inputs": {"box": {"type": ["CustomConnection"], "custom_type": ["Box"]}, "path": {"type": ["string"]}},
        },
        "npf_tools.text.ask": {
            "name": "Ask",
            "type": "custom_llm",
            "module": "npf_tools.text",
            "function": "ask",
            "inputs": {"connection": {"type": ["CustomConnection"]}, "upper": {"type": ["bool"]}},
        },
        "npf_tools.text.no_template": {
            "name": "No template",
            "type": "custom_llm",
            "module": "npf_tools.text",
            "function": "shout",
            "inputs": {"text": {"type": ["string"]}},
        },
    }
