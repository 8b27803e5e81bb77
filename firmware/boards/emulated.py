"""The emulated board (hil_tests/laterne_emulator): the pins of a Pico, a line without driver enable."""

MODEL = "emulated"
TIER = 0  # software: keys lie in flash (laterne_protocol.credential.TIERS)
I2C_ID, I2C_SDA, I2C_SCL = 0, 4, 5
UART_ID, UART_TX, UART_RX = 0, 0, 1
UART_DE = None
SERVICE_PIN = 22  # switch to ground: low is closed
ADC_PIN = 26  # noise for random numbers
LED_PIN = 25
