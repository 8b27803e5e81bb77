"""Raspberry Pi Pico (RP2040) on the post board: GPIO numbers."""

MODEL = "pico"
TIER = 0  # software: keys lie in flash (laterne_protocol.credential.TIERS)
I2C_ID, I2C_SDA, I2C_SCL = 0, 4, 5
UART_ID, UART_TX, UART_RX = 0, 0, 1
UART_DE = 2  # RS-485 driver enable; harmless where the line is point to point
SERVICE_PIN = 22  # switch to ground: low is closed
ADC_PIN = 26  # left open: noise for random numbers
LED_PIN = 25
