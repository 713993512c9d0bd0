from health_cases import SPIKED as CASES
